"""A way of a kilobit a second: catalog heads and waybills by radio, through Reticulum in its own process."""
