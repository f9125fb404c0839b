"""How a job fares with more and more workers, and what holds it up."""
