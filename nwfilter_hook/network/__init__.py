"""What the kernel's network says of itself: devices and what stands on them. It only reads."""
