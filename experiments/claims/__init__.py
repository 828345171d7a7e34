"""The claims of the description of Algorithm 1, each with a measurement and a verdict."""
