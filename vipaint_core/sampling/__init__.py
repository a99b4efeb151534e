"""From a fitted posterior or a degraded picture to fills."""
