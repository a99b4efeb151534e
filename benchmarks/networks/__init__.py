"""Networks of the published sizes from the host's own classes, without their weights."""
