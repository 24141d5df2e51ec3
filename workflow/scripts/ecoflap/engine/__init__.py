"""One walk over the blocks of a model: replay, statistics, gradients."""
