"""What rules compile to, and what that does with a frame; knows no back end."""
