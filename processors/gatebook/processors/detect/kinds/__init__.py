"""Ready-made logic: what most rules need, by [detect] kind of their rule.toml."""
