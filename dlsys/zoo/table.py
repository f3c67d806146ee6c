"""The catalogue's names: each stands for a folder of the zoo, or for a preset of what is in it."""

WORKLOADS = {
    "alexnet": "vision.alexnet",
    "char-rnn": "language.char_rnn",
    "dlrm": "recommend.dlrm",
    "gan": "generate.gan",
    "lenet-5": "vision.lenet5",
    "mixture-of-experts": "foundation.mixture_of_experts",
    "nin": "vision.nin",
    "resnet": "vision.resnet",
    "resnet-110": "vision.resnet:110",
    "resnet-20": "vision.resnet:20",
    "resnet-32": "vision.resnet:32",
    "resnet-44": "vision.resnet:44",
    "resnet-56": "vision.resnet:56",
    "softmax-regression": "foundation.softmax_regression",
    "vgg": "vision.vgg",
    "vgg-11": "vision.vgg:11",
    "vgg-13": "vision.vgg:13",
    "vgg-16": "vision.vgg:16",
    "vgg-19": "vision.vgg:19",
    "zf-net": "vision.zf_net",
}
