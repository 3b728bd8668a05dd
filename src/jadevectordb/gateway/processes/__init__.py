"""A server of several processes: one writes and owns everything, the others answer searches and reads from what it wrote.

    shown      what the writer shows in shared memory: how far each database is, whether rights were taken away, which databases there are
    followed   the reader's databases, kept in step with that
    reading    the reader's way from a request to an answer: its own where it can be sure of everything, else the writer's
    link, hub  the connection between the two, at its ends; `messages` is what goes over it
    reports    what readers have to tell: requests, searches, log lines, so that figures are of the whole server

A reader answers only when it knows that it may and that it is in step: the credential was seen by the writer since rights were last
taken away, the list of databases is the newest, the database has applied all that was acknowledged. Otherwise, and for everything
that is no search or read, the writer answers through it. So nothing is decided twice, and falling behind costs time, never truth.
"""
