"""`python -m cdc.alert` is the `cdc-lag-alert` program."""

from cdc.alert.program import main

main()
