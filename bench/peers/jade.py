"""JadeVectorDB beside other servers: an adapter for the side-by-side harness, with recall targets as its search settings.

Copied next to the harness's other adapters, with `$PEERS_ROOT/v-jade` a virtual environment that has jadevectordb installed.
"""

from base import ROOT, Base

import jadevectordb as jade

PORT = 7121


class Adapter(Base):
    params = "recall targets, one shard, durable (fsync before every answer)"
    efs = (0.90, 0.955, 0.993)  # a little above what is compared at: .90, .95, .99

    def start(self, home):
        flags = ["--port", str(PORT), "--grpc-port", "-1", "--auth", "open-loopback", "--log-level", "warning"]
        return self.spawn([f"{ROOT}/v-jade/bin/jade", "serve", "--data", f"{home}/data", *flags], home, PORT)

    def connect(self):
        self.client = jade.Client(f"http://127.0.0.1:{PORT}")
        self.database = None
        return self

    @property
    def words(self):
        if self.database is None:
            self.database = self.client.database("bench")
        return self.database

    def version(self, c):
        return f"jadevectordb {jade.__version__}, its own client"

    def create(self, c, dim):
        schema = {"t10": "integer", "t100": "integer"}
        c.client.create_database("bench", dimension=dim, metric="cosine", schema=schema)

    def upsert(self, c, ids, vecs, t10, t100, bulk=False):
        metadata = [{"t10": int(a), "t100": int(b)} for a, b in zip(t10, t100, strict=True)]
        c.words.upsert([str(i) for i in ids], vecs, metadata)

    def finish(self, c):
        c.words.wait_indexed(280)

    def search(self, c, q, k, ef, flt):
        hits = c.words.search(q, k=k, recall=ef, filter={flt[0]: flt[1]} if flt else None, include=())
        return [int(hit.id) for hit in hits]

    def delete(self, c, ids):
        c.words.delete([str(i) for i in ids])

    def empty(self, c):
        c.client.info()
