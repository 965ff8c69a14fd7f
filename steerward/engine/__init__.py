"""Which tokens run when: admission, queue, batches, the thread that owns the device. No HTTP."""
