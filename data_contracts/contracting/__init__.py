"""The contract as a tool: read, infer, compare, try, show, export and import contracts. Nothing here takes data in."""
