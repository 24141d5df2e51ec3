"""Small models, data sets in their real layouts, and whole projects for the tests."""
