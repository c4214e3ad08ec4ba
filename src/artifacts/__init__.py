"""Every file that passes between stages."""
