"""From decoded features to pictures in the time that there is: one thread for each device, the newest epoch first."""
