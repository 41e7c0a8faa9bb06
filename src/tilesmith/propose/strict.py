"""YAML in which a key that stands twice is an error, not the last one's."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


class Strict(yaml.SafeLoader):
    """Builds plain values only."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if isinstance(name, Hashable):
                if name in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{name!r} stands twice", key.start_mark)
                seen.add(name)
        return super().construct_mapping(node, deep)
