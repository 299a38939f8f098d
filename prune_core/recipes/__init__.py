"""What a user chose, as data: recipes, their forms and checks."""
