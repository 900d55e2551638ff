"""From epochs to features: one thread that decodes every accepted epoch in its order, and what stands beside it."""
