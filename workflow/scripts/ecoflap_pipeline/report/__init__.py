"""Tables, figures and costs from what the rules have written."""
