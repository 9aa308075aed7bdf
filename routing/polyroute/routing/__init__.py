"""Where a call goes: registry, plan, router and the layers around each backend. Knows no gRPC, HTTP or torch."""
