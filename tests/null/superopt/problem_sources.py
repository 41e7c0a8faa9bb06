"""Problems in KernelBench's form for tracing, each as source."""

HEAD = """import torch
import torch.nn.functional as F
from torch import nn
"""


def problem(body: str, inputs: str, init: str = "") -> str:
    """A model whose forward has this body, with these inputs."""
    names = inputs.replace(" ", "")
    arguments = ", ".join(entry.partition("=")[0] for entry in names.split(";"))
    made = ", ".join(entry.partition("=")[2] for entry in names.split(";"))
    lines = "".join(f"        {line}\n" for line in body.strip().splitlines())
    setup = "".join(f"        {line}\n" for line in init.strip().splitlines())
    return (
        f"{HEAD}\nROWS = 6\nclass Model(nn.Module):\n    def __init__(self):\n        super().__init__()\n{setup}\n"
        f"    def forward(self, {arguments}):\n{lines}\n"
        f"def get_inputs():\n    return [{made}]\n\ndef get_init_inputs():\n    return []\n"
    )


SUPPORTED = {
    "linear and layer norm": problem(
        "return F.relu(self.norm(self.linear(x)))",
        "x=torch.randn(4,8)",
        "self.linear = nn.Linear(8, 16)\nself.norm = nn.LayerNorm(16)",
    ),
    "grouped convolution": problem(
        "return F.gelu(self.conv(x))", "x=torch.randn(2,6,10,9)", "self.conv = nn.Conv2d(6, 9, 3, padding=1, groups=3)"
    ),
    "convolution without a batch": problem(
        "return self.conv(x)", "x=torch.randn(3,20)", "self.conv = nn.Conv1d(3, 4, 5, stride=2, dilation=2)"
    ),
    "group norm": problem("return self.norm(x)", "x=torch.randn(2,6,5)", "self.norm = nn.GroupNorm(3, 6)"),
    "attention": problem(
        "return F.scaled_dot_product_attention(q, k, v)",
        "q=torch.randn(2,5,8); k=torch.randn(2,7,8); v=torch.randn(2,7,4)",
    ),
    "joined projection": problem(
        "q, k, v = self.qkv(x).chunk(3, dim=-1)\nreturn torch.softmax(q @ k.transpose(-2, -1) * 8**-0.5, -1) @ v",
        "x=torch.randn(2,5,8)",
        "self.qkv = nn.Linear(8, 24, bias=False)",
    ),
    "largest of windows": problem(
        "a, _ = F.max_pool2d(x, 3, 2, 1, return_indices=True)\n"
        "return a, F.max_pool1d(x[0], 3), F.max_pool3d(x, 2, (1, 2, 3))",
        "x=torch.randn(4,5,11,9)",
    ),
    "means of windows": problem(
        "a, b = F.avg_pool2d(x, (2, 3), padding=1), F.avg_pool2d(x, 2, count_include_pad=False)\n"
        "return a + 1, b, F.avg_pool3d(x, 3, 1), F.adaptive_avg_pool2d(x, 1), F.adaptive_avg_pool2d(x, (4, 3))",
        "x=torch.randn(4,5,12,9)",
    ),
    "einsum": problem("return torch.einsum('bij,bkj->bki', x, y)", "x=torch.randn(2,5,8); y=torch.randn(2,4,8)"),
    "variance and norm": problem(
        "return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-3) + x.norm(dim=-1, keepdim=True)",
        "x=torch.randn(5,8)",
    ),
    "rows and pieces": problem(
        "a, b = x[:, 1], x[1:3, :, 2:]\nreturn a.sum(), torch.stack([a, a * 2]).mean(0), b.reshape(2, -1)",
        "x=torch.randn(4,5,6)",
    ),
    "joined rows": problem("return torch.cat([x, x * 2], 1)", "x=torch.randn(4,5,6)"),
    "clamps": problem(
        "return F.leaky_relu(x) + F.relu6(x) + x.clamp(min=0.5) - x.clamp(-1, 1) * x.abs() / (2 - x) - F.hardtanh(x)",
        "x=torch.randn(5,8)",
    ),
    "in place": problem("y = x * 2\ny += x\nreturn torch.sigmoid_(y)", "x=torch.randn(5,8)"),
    "vectors": problem("return w @ x, x @ y", "w=torch.randn(5,8); x=torch.randn(8); y=torch.randn(8,3)"),
    "repeated heads": problem(
        "k = x.unsqueeze(1).expand(-1, 3, -1, -1).reshape(-1, 5, 8)\nreturn k @ k.mT", "x=torch.randn(2,5,8)"
    ),
    "powers": problem("return x**3 + x**-1 + (x * x + 1) ** 0.5 + x.square() + x.float()", "x=torch.randn(5,8)"),
    "rms norm of two dimensions": problem(
        "return F.rms_norm(x, (4, 8), w) + F.rms_norm(x, (8,))", "x=torch.randn(3,4,8); w=torch.randn(4,8)"
    ),
}
"""Which become one graph."""

FAULTS = {
    "rows chosen by data": (problem("return x[x > 0]", "x=torch.randn(5)"), "depend on data"),
    "a branch on data": (problem("return x if x.sum() > 0 else -x", "x=torch.randn(5)"), "depend on data"),
    "an unknown name": (problem("return undefined(x)", "x=torch.randn(5)"), r"line \d+.*NameError: name 'undefined'"),
    "extents that do not fit": (problem("return x @ x", "x=torch.randn(5, 4)"), "cannot be traced"),
    "an input changed in place": (problem("x.add_(1)\nreturn x", "x=torch.randn(5)"), "in place"),
    "no tensor returned": (problem("return 3", "x=torch.randn(5)"), "returns something else"),
    "an operator without translation": (problem("return torch.cumsum(x, 0)", "x=torch.randn(5)"), "cumsum.*line"),
}
"""Each with what is said of it."""
