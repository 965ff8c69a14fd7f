"""The contract: everything that crosses a process boundary. Free of torch."""
