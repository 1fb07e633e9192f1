"""Trace a model for one input size to a flat graph of PyTorch's own layers, and fold them.

Graph mode quantization needs such a graph. Symbolic tracing alone fails for models that compute
with shapes, as MobileViT, and timm combines several layers in one.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from timm.layers.helpers import to_2tuple
from timm.layers.norm_act import BatchNormAct2d, GroupNormAct
from timm.layers.padding import get_same_padding, pad_same
from timm.layers.pool2d_same import MaxPool2dSame
from timm.layers.std_conv import StdConv2d, StdConv2dSame
from torch import fx, nn
from torch.ao.quantization.backend_config import get_qnnpack_backend_config
from torch.ao.quantization.quantize_fx import fuse_fx

from pipeline.process import quiet


class ConcreteTracer(fx.Tracer):
    """Traces by running on an example, so that control flow on shapes becomes constant."""

    def __init__(self, example: torch.Tensor) -> None:
        super().__init__()
        self.example = example
        self.computing = False

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any
    ) -> Any:
        if kind == "placeholder" and args:
            return args[0]  # an optional input of the model: its default, as a constant
        value = self._value(kind, target, args, kwargs)
        arguments: Any = (self.create_arg(args), self.create_arg(kwargs))
        node = self.create_node(kind, target, *arguments, *rest[:2])
        return ConcreteProxy(node, self, value)

    def _value(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            return self.example
        args, kwargs = _concrete(args), _concrete(kwargs)
        self.computing = True
        try:
            with torch.no_grad():
                if kind == "call_module":
                    return self.root.get_submodule(target)(*args, **kwargs)
                if kind == "call_function":
                    return target(*args, **kwargs)
                if kind == "call_method":
                    return getattr(args[0], target)(*args[1:], **kwargs)
                value: Any = self.root
                for part in target.split("."):
                    value = getattr(value, part)
                return value
        finally:
            self.computing = False

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if self.computing:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if self.computing:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


class ConcreteProxy(fx.Proxy):
    """A proxy that knows its value, so that sizes become constants."""

    def __init__(self, node: fx.Node, tracer: ConcreteTracer, value: Any) -> None:
        super().__init__(node, tracer)
        self.value = value

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    dtype = property(lambda self: self.value.dtype)
    device = property(lambda self: self.value.device)

    def size(self, dim: int | None = None) -> Any:
        return self.value.size() if dim is None else self.value.size(dim)

    def dim(self) -> int:
        return int(self.value.dim())

    def numel(self) -> int:
        return int(self.value.numel())

    def __len__(self) -> int:
        return len(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)


def _concrete(values: Any) -> Any:
    return fx.node.map_aggregate(values, lambda v: v.value if isinstance(v, ConcreteProxy) else v)


class FinitePool(MaxPool2dSame):
    """Pads with the lowest number instead of -infinity, which a ``.pte`` cannot hold."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride, dilation = map(to_2tuple, (self.kernel_size, self.stride, self.dilation))
        x = pad_same(x, kernel, stride, dilation, value=torch.finfo(x.dtype).min)
        return nn.functional.max_pool2d(x, kernel, stride, 0, dilation)


class SamePadded(nn.Module):
    """A convolution with TensorFlow's "same" padding, which depends on the input's size."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        conv = self.conv
        high, wide = (
            get_same_padding(size, kernel, stride, dilation)
            for size, kernel, stride, dilation in zip(
                x.shape[-2:], conv.kernel_size, conv.stride, conv.dilation, strict=True
            )
        )
        sides = [wide // 2, wide - wide // 2, high // 2, high - high // 2]
        padded: torch.Tensor = conv(nn.functional.pad(x, sides))
        return padded


def fused(model: nn.Module, shape: tuple[int, ...]) -> fx.GraphModule:
    """Trace ``model`` for inputs of ``shape`` [n, 3, H, W], in evaluation mode; same function.

    Batch normalization is folded into the convolution before it. ``model`` is not changed.
    """
    simple = plain(model)
    graph = ConcreteTracer(torch.zeros(shape)).trace(simple)
    traced = fx.GraphModule(simple, graph)
    traced.graph.eliminate_dead_code()
    _drop(traced, (nn.Identity, nn.Dropout))
    with quiet():
        whole: fx.GraphModule = fuse_fx(traced, backend_config=get_qnnpack_backend_config())
    return whole.eval()


def plain(model: nn.Module) -> nn.Module:
    """Return a copy with PyTorch's layers in place of timm's combined ones; same function.

    Standardized weights (Big Transfer's ``StdConv2d``) are computed once.
    """
    model = copy.deepcopy(model).eval()
    for name, module in list(model.named_modules()):
        if isinstance(module, BatchNormAct2d | GroupNormAct):
            model.set_submodule(name, nn.Sequential(_bare(module), module.drop, module.act))
        elif isinstance(module, StdConv2d | StdConv2dSame):
            model.set_submodule(name, _standardized(module))
        elif isinstance(module, MaxPool2dSame):
            shape = (module.kernel_size, module.stride)
            model.set_submodule(name, FinitePool(*shape, dilation=module.dilation))
    return model


def _bare(module: nn.Module) -> nn.Module:
    """The normalization alone."""
    bare: nn.Module
    if isinstance(module, BatchNormAct2d):
        bare = nn.BatchNorm2d(module.num_features, module.eps)
    else:
        assert isinstance(module, GroupNormAct)
        bare = nn.GroupNorm(module.num_groups, module.num_channels, module.eps)
    state = {k: v for k, v in module.state_dict().items() if k in bare.state_dict()}
    bare.load_state_dict(state)
    return bare.eval()


def _standardized(module: StdConv2d | StdConv2dSame) -> nn.Module:
    shape: Any = (module.kernel_size, module.stride, module.padding, module.dilation)
    channels = (module.in_channels, module.out_channels)
    bias = module.bias is not None
    conv = nn.Conv2d(*channels, *shape, groups=module.groups, bias=bias)  # type: ignore[misc]
    flat = module.weight.detach().reshape(1, module.out_channels, -1)
    whole = nn.functional.batch_norm(flat, None, None, training=True, momentum=0.0, eps=module.eps)
    conv.weight = nn.Parameter(whole.reshape_as(module.weight))
    if module.bias is not None:
        conv.bias = nn.Parameter(module.bias.detach())
    same = isinstance(module, StdConv2dSame) and module.same_pad
    return SamePadded(conv) if same else conv


def _drop(model: fx.GraphModule, kinds: tuple[type[nn.Module], ...]) -> None:
    """Remove modules that do nothing in evaluation mode."""
    for node in list(model.graph.nodes):
        if node.op == "call_module" and isinstance(model.get_submodule(node.target), kinds):
            node.replace_all_uses_with(node.args[0])
            model.graph.erase_node(node)
    model.delete_all_unused_submodules()
    model.recompile()
