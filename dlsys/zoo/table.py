"""The catalogue's names: each stands for a folder of the zoo, or for a preset of what is in it."""

WORKLOADS = {
    "char-rnn": "language.char_rnn",
    "dlrm": "recommend.dlrm",
    "gan": "generate.gan",
    "lenet-5": "vision.lenet5",
    "mixture-of-experts": "foundation.mixture_of_experts",
    "resnet": "vision.resnet",
    "resnet-110": "vision.resnet:110",
    "resnet-20": "vision.resnet:20",
    "resnet-32": "vision.resnet:32",
    "resnet-44": "vision.resnet:44",
    "resnet-56": "vision.resnet:56",
    "softmax-regression": "foundation.softmax_regression",
}
