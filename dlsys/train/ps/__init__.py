"""Parameter servers (Li et al. 2014, "Scaling Distributed Machine Learning with the Parameter Server").

Parameters and their optimizer live on servers, cut into shards; workers push gradients and pull
parameters. `shards` says which server holds what, `store` is one server's shards and its update
rule, `server` says who waits for whom, `client` is a worker's side, `wire` and `parts` what travels.
`meeting` is where asynchronous workers meet and get their work; it and servers are a `service`.
"""
