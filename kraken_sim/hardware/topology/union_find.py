"""What hangs together, found link by link."""

from __future__ import annotations


class UnionFind:
    """Connected components while links are added one by one."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        """The node that stands for the component of this one."""
        parent = self._parent
        root = name
        while (above := parent.get(root, root)) != root:
            root = above
        # The way that was walked is made short, so that many questions take as many steps.
        while (above := parent.get(name, name)) != root:
            parent[name] = root
            name = above
        return root

    def join(self, a: str, b: str) -> bool:
        """Joins two components; False when they were one already."""
        a, b = self.find(a), self.find(b)
        self._parent[a] = b
        return a != b
