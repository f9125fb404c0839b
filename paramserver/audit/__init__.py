"""What must hold in every run, judged from what went into a shard or the coordinator and what came out.

An auditor keeps a model of its own, made of events and effects alone; it shares no line with the code that it
judges. Each `observe` returns what is wrong with one event's effects; a right core gives it nothing to say.

==========  =============================================================================================
once        a push, known by rank and sequence, changes a shard at most once, whole, and is answered so
version     versions and rounds grow by one; a read shows the newest (Lamport 1978: happened before)
read        sync: the rounds before the reader's clock (Valiant 1990); ssp:N: every update of a clock
            <= c - N - 1 of everyone who counts (Ho et al. 2013, section 2); async: at once
wake        who waits has a reason to: what may be granted or closed now is not left lying
round       a round is everyone who counts, closed once and alike on all shards (Chen et al. 2016, section 1)
staleness   version before the update minus the version that was read (Zhang et al. 2016, section 2)
fence       an old incarnation changes nothing (Burrows 2006, section 2.4: sequencers)
order       orders are numbered without a gap, handled once each and reported
answer      each request gets one answer, and the verdict says what became of the push
samples     computed = applied + dropped + fenced + partial + lost, and each word is true on every shard
generation  who goes back goes to one checkpoint, as it was made; what was applied since is void, and nothing
            of it counts (Elnozahy et al. 2002, section 2)
replay      told the same once more, a shard answers the same (Schneider 1990, section 2: state machines)
journal     files follow one another whole, and a checkpoint was made where it says (Haber and Stornetta
            1991: linked digests)
weights     a checkpoint holds the weights that it names, and replay leads to them
==========  =============================================================================================
"""

from paramserver.audit.account import Account, join_ledgers, overlapping
from paramserver.audit.coordinator import CoordinatorAudit
from paramserver.audit.cuts import State
from paramserver.audit.job import Settled, audit_end
from paramserver.audit.ledger import Ledger
from paramserver.audit.shard import ShardAudit
from paramserver.audit.together import OrdersAudit
from paramserver.audit.violation import PROPERTIES, Violation

__all__ = [
    "PROPERTIES",
    "Account",
    "CoordinatorAudit",
    "Ledger",
    "OrdersAudit",
    "Settled",
    "ShardAudit",
    "State",
    "Violation",
    "audit_end",
    "join_ledgers",
    "overlapping",
]
