"""What pre-training and transfer share; it knows neither of them."""
