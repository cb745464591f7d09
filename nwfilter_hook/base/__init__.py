"""What every package stands on: errors, text, XML, frozen values."""
