"""The model refuses one caller again and again."""
