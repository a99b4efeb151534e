"""What is known about a picture: operators, observations, their likelihood, and encoder crosstalk."""
