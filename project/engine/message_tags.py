"""Tags of the messages between stages: which way a message goes. Neither autograd nor the runtime's batches say it."""

ACTIVATION, GRADIENT = 0, 1
