"""Front ends: one file per framework, each turning its models into a Graph."""
