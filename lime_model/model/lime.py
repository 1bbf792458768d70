"""LIME, whole and unfolded: the form to read, to train and to certify against.

    score(u, c) = w·relu([o ; T_c ; x_u] W + b) + d_c·e_u + s_u(c) + β_c,   o = A_c P_u

Tasks have a w, e_u and s_u of their own, and each logit is linear in them. The score is the weighted sum of
the tasks' logits, so it has the same form. The repeat memory also reads the weighted sum z.

`lime_model/model/fold.py` folds the score into factors per user and per item. Links, link weights and the XOR
mask are those of arXiv:2510.18239; the dot, the bias and the memory are this project's.

Letters: U users, N events, C candidates, n rows that are asked for, L links, D width, X user width, F hidden
units, E width of the dot, J pools, P entries of a row's features, M pairs of the history, Q memory features,
O tasks.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lime_model.arrays import Ints
from lime_model.config import ModelConfig, ScoreTerm
from lime_model.model.entries import Entries
from lime_model.model.features import Catalogue
from lime_model.model.links import LinkAttention, Links, finish_softmax, reduce_pools
from lime_model.model.repeat_memory import RepeatMemory
from lime_model.model.xor import XorStack


class History(NamedTuple):
    """A padded block of histories.

    `events [U, N, D]`, `days [U, N]` (time in days, origin fixed per user), `keep [U, N]`.
    Events are in time order, padding first, so the last N_max are a suffix.
    """

    events: Tensor
    days: Tensor
    keep: Tensor


class UserState(NamedTuple):
    """What scoring reads of users: P_u `[U, L, D]`, pools `[U, J, D]` and x_u `[U, X]`."""

    links: Tensor
    pools: Tensor
    user: Tensor


class Features(NamedTuple):
    """Entries of the feature columns: table rows `slots [n, P]` and their `weights [n, P]`."""

    slots: Tensor
    weights: Tensor

    @classmethod
    def of(cls, entries: Entries, rows: Ints | slice = slice(None)) -> Features:
        """Return some rows of encoded entries as tensors."""
        return cls(torch.from_numpy(entries.slots[rows]), torch.from_numpy(entries.weights[rows]))

    def at(self, rows: slice) -> Features:
        """Return some rows."""
        return Features(self.slots[rows], self.weights[rows])


class FeatureSum(nn.Module):
    """The weighted sum of a row's embeddings, for columns of any kind (`lime_model/model/encoders.py`)."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, features: Features) -> Tensor:
        """Compute the sums `[n, width]`; without columns they are zero."""
        table = self.table.weight
        if features.slots.shape[1] == 0:
            return table.new_zeros(len(features.slots), table.shape[1])
        weights = features.weights.to(table.dtype)
        return F.embedding_bag(features.slots, table, per_sample_weights=weights, mode="sum")


class ItemTower(nn.Module):
    """T_c from the item's id and features; row 0 of the ids is shared by items without an id of their own."""

    def __init__(self, rows: int, feature_rows: int, width: int) -> None:
        super().__init__()
        self.ids = nn.Embedding(rows, width)
        self.features = FeatureSum(feature_rows, width)
        last = nn.Linear(width, width)
        self.deep = nn.Sequential(nn.Linear(width, width), nn.ReLU(), last)
        nn.init.normal_(self.ids.weight, std=0.02)
        nn.init.zeros_(last.weight)

    def forward(self, rows: Tensor, features: Features) -> Tensor:
        """Compute T `[n, D]` from id rows `[n]` and features `[n]`."""
        flat = self.ids(rows) + self.features(features)
        deep: Tensor = self.deep(flat)
        return flat + deep


class LimeModel(nn.Module):
    """The whole model.

    Args:
        config: sizes, variant and columns.
        item_rows: id embeddings, row 0 included.
        item_feature_rows: rows of the table that all item columns share.
        user_feature_rows: rows of the table that all user columns share.
    """

    def __init__(
        self, config: ModelConfig, *, item_rows: int, item_feature_rows: int, user_feature_rows: int
    ) -> None:
        super().__init__()
        self.config = config
        state_width = config.links * config.width + config.pools * config.width + config.user_width
        self.items = ItemTower(item_rows, item_feature_rows, config.width)
        self.users = FeatureSum(user_feature_rows, config.user_width)
        self.event_type = nn.Embedding(config.actions, config.width)
        self.dot_item = nn.Linear(config.width, config.dot, bias=False)
        tasks = len(config.mix)
        self.dot_pools = nn.Linear(config.pools * config.width, tasks * config.dot)
        last = nn.Linear(128, tasks * config.dot)
        self.dot_user = nn.Sequential(nn.Linear(state_width, 128), nn.ReLU(), last)
        self.memory = RepeatMemory(config)
        self.bias_weight = nn.Parameter(torch.tensor(0.7))
        nn.init.normal_(self.event_type.weight, std=0.02)
        if config.labelled:
            self.action_scale = nn.Embedding(config.actions, config.width)
            nn.init.ones_(self.action_scale.weight)
            with torch.no_grad():
                self.action_scale.weight[2::3] = -1.0  # label 0, see `encode_actions`
        nn.init.normal_(last.weight, std=1e-3)
        # The links come last, so that a seed gives every variant the same towers; see `Trainer.adopt`.
        self.links = Links(config)
        self.reader = LinkAttention(config) if config.variant == "lime-mha" else XorStack(config)
        self.head = nn.Linear(2 * config.width + config.user_width, config.hidden)
        self.head_out = nn.Linear(config.hidden, tasks, bias=False)
        # The dot is trained first, without links: these zeros let them join without a jump.
        nn.init.zeros_(self.head_out.weight)
        first = self.dot_user[0]
        assert isinstance(first, nn.Linear)
        nn.init.zeros_(first.weight[:, : config.links * config.width])
        self.silence()

    def silence(self) -> None:
        """Set the parts that `config.without` names to zero, and exclude them from training."""
        last = self.dot_user[-1]
        assert isinstance(last, nn.Linear)
        parts: dict[ScoreTerm, list[nn.Parameter]] = {
            "dot": [*self.dot_item.parameters(), *self.dot_pools.parameters(), *last.parameters()],
            "bias": [self.bias_weight],
            "memory": [*self.memory.outer.parameters(), *self.memory.skip.parameters()],
        }
        for name in self.config.without:
            for parameter in parts[name]:
                nn.init.zeros_(parameter)
                parameter.requires_grad_(False)

    def embed_items(self, catalogue: Catalogue, rows: Ints | slice = slice(None)) -> Tensor:
        """Compute T `[n, D]` of some catalogue rows."""
        ids = torch.from_numpy(catalogue.id_rows[rows])
        vectors: Tensor = self.items(ids, Features.of(catalogue.features, rows))
        return vectors

    def embed_events(self, items: Tensor, actions: Tensor) -> Tensor:
        """Embed events, from T of their items `[..., D]` and their action codes `[...]`.

        A label scales the item's vector, and the scale starts as the label's sign. So a mean over events
        shows which items were liked; a sum of item and label would only show which items there were and how
        many were liked.
        """
        scaled = items * self.action_scale(actions) if self.config.labelled else items
        events: Tensor = scaled + self.event_type(actions)
        return events

    def read(self, history: History, features: Features) -> UserState:
        """Read histories and user features `[U]` into the state that scoring needs."""
        user = self.users(features)
        queries = self.links.contextual(user)
        pools = reduce_pools(history.events, history.days, history.keep, self.config.pool_days)
        if isinstance(self.reader, LinkAttention):
            links = self.reader.finish(self.reader.reduce(queries, *history))
        else:
            links = self.reader(queries, *(x[:, -self.config.max_events :] for x in history))
        return UserState(links, finish_softmax(pools), user)

    def dot_vector(self, state: UserState) -> Tensor:
        """Compute e_u of every task `[U, O, E]`."""
        pools = state.pools.flatten(1)
        wide = torch.cat([state.links.flatten(1), pools, state.user], -1)
        dot: Tensor = self.dot_pools(pools) + self.dot_user(wide)
        return dot.view(len(dot), -1, self.config.dot)

    def base_scores(self, state: UserState, items: Tensor) -> Tensor:
        """Compute the score without memory and bias `[U, C]` for T `[C, D]`: links and dot."""
        return self.weigh(self.task_scores(state, items), 1)

    def repeat_boost(self, features: Tensor, base: Tensor) -> Tensor:
        """Compute the boost s `[M]` from features `[M, Q]` and base scores `[M]`."""
        return self.weigh(self.memory(features, base), 1)

    def weigh(self, values: Tensor, axis: int) -> Tensor:
        """Return the weighted sum of the tasks, which lie along `axis`."""
        parts = (weight * part for weight, part in zip(self.config.mix, values.unbind(axis), strict=True))
        return functools.reduce(torch.add, parts)

    def task_scores(self, state: UserState, items: Tensor) -> Tensor:
        """Compute links and dot of every task `[U, O, C]` for T `[C, D]`."""
        attended = self.links.weights(items) @ state.links  # o [U, C, D]
        blocks = [self.config.width, self.config.width, self.config.user_width]
        of_links, of_item, of_user = self.head.weight.split(blocks, 1)  # W over [o ; T_c ; x_u]
        hidden = (attended @ of_links.T).add_(items @ of_item.T + self.head.bias)  # [U, C, F]
        hidden = hidden.add_((state.user @ of_user.T).unsqueeze(1)).relu_()
        shallow: Tensor = self.head_out(hidden).transpose(1, 2)
        return shallow + self.dot_vector(state) @ self.dot_item(items).T

    def item_bias(self, recent_count: Tensor) -> Tensor:
        """Compute β `[C]` from the number of events in the last `bias_days` before the night."""
        return self.bias_weight * torch.log1p(recent_count)
