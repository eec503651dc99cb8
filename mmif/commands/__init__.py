"""The commands: one file for each verb, which parses and prints; what it calls returns. Nobody imports them."""
