"""The device mesh of a layout: `(pp, dp, tp)`."""

from dataclasses import dataclass

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from project.parallel.layout import ParallelLayout


@dataclass(frozen=True)
class Mesh:
    """`dense` has the axes pp, dp and tp. Where ep == tp and etp == 1 the expert axis *is* the tp axis, so that
    optimizer and gradient norm see one mesh; no other expert axis is made yet."""

    layout: ParallelLayout
    dense: DeviceMesh

    @property
    def pp(self) -> DeviceMesh:
        return self.dense["pp"]

    @property
    def dp(self) -> DeviceMesh:
        return self.dense["dp"]

    @property
    def tp(self) -> DeviceMesh:
        return self.dense["tp"]


def build_mesh(layout: ParallelLayout, device_type: str) -> Mesh:
    """Needs a process group of `layout.world_size` ranks."""
    dense = init_device_mesh(device_type, (layout.pp, layout.dp, layout.tp), mesh_dim_names=("pp", "dp", "tp"))
    return Mesh(layout, dense)
