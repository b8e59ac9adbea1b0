"""The pages: plain functions of the site and a request that return a response."""
