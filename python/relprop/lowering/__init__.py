"""What each operator of a Graph becomes in a Plan: a file for each kind of step of the core."""
