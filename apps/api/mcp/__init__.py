"""Agents: the Model Context Protocol over POST /mcp, one message a request and no sessions.

protocol   messages, versions of the protocol, the headers that go with them
agents     the view: a message in, its answer out
tools      the table of tools, and how one is called
arguments  what each tool takes
answers    what each tool gives, for its schema
reading    the tools that read
writing    the tools that write
refusals   what an agent is told of a call that is refused
bounds     answers that fit into what an agent can read
"""
