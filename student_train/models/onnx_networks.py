"""Networks over embeddings as ONNX graphs, written node by node.

torch's exporter traces a graph and can trace no packed sequence, whose shape depends on the lengths of its rows. ONNX
has what is needed as one operator: LSTM and GRU take the length of every row and run backwards from its last token. So
the graphs, which are small, are put together here. The gates of the weights are brought into ONNX's order: i o f c of
an LSTM (torch: i f g o), z r h of a GRU (torch: r z n).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from student_train.models.bag import BagStudent
from student_train.models.recurrent import RecurrentStudent
from student_train.models.task_network import NetworkStudent

INPUTS = ("input_ids", "attention_mask", "segment_ids")
OUTPUT = "logits"
OPSET = 20
GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}
"""Which of torch's gates stands at each place of ONNX's."""

LOWEST = float(np.finfo(np.float32).min)


class _Graph:
    """Nodes and constants under names of their own."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node; the name of its output."""
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, value: NDArray[Any] | Tensor | list[int] | int | float) -> str:
        """A constant; whole numbers are int64, others float32."""
        array = value.detach().float().numpy() if isinstance(value, Tensor) else np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        name = f"constant_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def linear(self, inputs: str, layer: nn.Linear) -> str:
        """A linear layer over the last dimension."""
        product = self.op("MatMul", inputs, self.constant(layer.weight.detach().T))
        return product if layer.bias is None else self.op("Add", product, self.constant(layer.bias))


def network_graph(student: NetworkStudent) -> onnx.ModelProto:
    """The graph of a network, with the batch and the number of tokens left open."""
    graph = _Graph()
    # What stands at padding need not be a token.
    ids = graph.op("Mul", "input_ids", "attention_mask")
    embedded = graph.op("Gather", graph.constant(student.embedding.weight), ids)
    if isinstance(student, RecurrentStudent):
        states = _recurrent(graph, student, embedded)
    else:
        assert isinstance(student, BagStudent)
        states = _bag(graph, student, embedded)
    graph.op("Identity", graph.linear(states, student.head))
    graph.nodes[-1].output[0] = OUTPUT
    whole = helper.make_graph(
        graph.nodes,
        student.config.kind,
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in INPUTS],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, _output_shape(student))],
        list(graph.constants.values()),
    )
    # Readers of an older IR than this package writes are many; nothing newer is used.
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def _output_shape(student: NetworkStudent) -> list[str | int]:
    labels = len(student.labels)
    return ["batch", labels] if student.kind == "classification" else ["batch", "tokens", labels]


def _recurrent(graph: _Graph, student: RecurrentStudent, embedded: str) -> str:
    """States [B, T, 2H], or [B, 2H] of whole rows."""
    lengths = graph.op("ReduceSum", "attention_mask", graph.constant([1]), keepdims=0)
    lengths = graph.op("Cast", lengths, to=TensorProto.INT32)
    # ONNX runs over [T, B, E] and gives [T, 2, B, H].
    states = graph.op("Transpose", embedded, perm=[1, 0, 2])
    kind = "LSTM" if isinstance(student.network, nn.LSTM) else "GRU"
    for layer in range(student.network.num_layers):
        weights = [graph.constant(each) for each in _weights(student.network, layer, kind)]
        extra = {"linear_before_reset": 1} if kind == "GRU" else {}
        both = graph.op(
            kind, states, *weights, lengths, direction="bidirectional", hidden_size=student.network.hidden_size, **extra
        )
        beside = graph.op("Transpose", both, perm=[0, 2, 1, 3])
        states = graph.op("Reshape", beside, graph.constant([0, 0, -1]))
    states = graph.op("Transpose", states, perm=[1, 0, 2])
    if student.kind != "classification":
        return states
    valid = graph.op("Cast", "attention_mask", to=TensorProto.BOOL)
    wide = graph.op("Unsqueeze", valid, graph.constant([2]))
    if student.attention is None:
        masked = graph.op("Where", wide, states, graph.constant(LOWEST))
        return graph.op("ReduceMax", masked, graph.constant([1]), keepdims=0)
    seen = graph.op("Tanh", graph.linear(states, student.attention.states))
    scores = graph.op("Where", wide, graph.linear(seen, student.attention.score), graph.constant(LOWEST))
    weighted = graph.op("Mul", graph.op("Softmax", scores, axis=1), states)
    return graph.op("ReduceSum", weighted, graph.constant([1]), keepdims=0)


def _weights(network: nn.LSTM | nn.GRU, layer: int, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """W [2, gates x H, inputs], R [2, gates x H, H] and both biases [2, 2 x gates x H] of a layer."""

    def part(name: str) -> Tensor:
        """A weight of both directions."""
        found = []
        for way in ("", "_reverse"):
            gates = getattr(network, f"{name}_l{layer}{way}").detach().chunk(len(GATES[kind]))
            found.append(torch.cat([gates[place] for place in GATES[kind]]))
        return torch.stack(found)

    return part("weight_ih"), part("weight_hh"), torch.cat([part("bias_ih"), part("bias_hh")], dim=1)


def _bag(graph: _Graph, student: BagStudent, embedded: str) -> str:
    """The mean over words [B, E], or what the layer behind it makes of it."""
    counts = torch.ones(student.vocab, dtype=torch.int64)
    counts[student.left_out[student.left_out < student.vocab]] = 0
    ids = graph.op("Mul", "input_ids", "attention_mask")
    counted = graph.op("Mul", graph.op("Gather", graph.constant(counts.numpy()), ids), "attention_mask")
    weights = graph.op("Cast", counted, to=TensorProto.FLOAT)
    wide = graph.op("Unsqueeze", weights, graph.constant([2]))
    total = graph.op("ReduceSum", graph.op("Mul", embedded, wide), graph.constant([1]), keepdims=0)
    number = graph.op("ReduceSum", weights, graph.constant([1]), keepdims=1)
    mean = graph.op("Div", total, graph.op("Max", number, graph.constant(1.0)))
    return mean if student.hidden is None else graph.op("Relu", graph.linear(mean, student.hidden))
