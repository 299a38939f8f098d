"""Components with HTML and JavaScript of their own."""
