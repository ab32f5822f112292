"""Matrix factorizations with item priors computed from texts."""
