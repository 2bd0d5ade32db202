"""`python -m cdc.verify` is the `cdc-verify` program."""

from cdc.verify.program import main

main()
