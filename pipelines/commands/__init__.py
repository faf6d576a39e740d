"""The commands of `textrail`, a module for each group. They import what is heavy when a command needs it."""
