"""The behaviours by subject, each written once for both kinds of connectors."""
