"""The verbs of the command line, one row each; the function behind a row is imported when its verb is used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    name: str  # as typed; "data get" is the verb `get` of the group `data`
    target: str  # module:function
    summary: str


VERBS = (
    Verb("train", "convolve.cli.train:train", "Train a network on images."),
    Verb("evaluate", "convolve.cli.evaluate:evaluate", "Measure a trained model on labelled images."),
    Verb("report", "convolve.cli.report:report", "Make the report of a run again: the images behind its result."),
    Verb("predict", "convolve.cli.predict:predict", "Classify images with a trained model."),
    Verb("export", "convolve.cli.export:export", "Export a trained model to ONNX, torch or safetensors, and check it."),
    Verb(
        "inspect",
        "convolve.cli.inspect:inspect",
        "Shapes, receptive fields, cost and memory of a network, before it runs.",
    ),
    Verb(
        "explain",
        "convolve.cli.explain:explain",
        "See what a network makes of an image: maps, receptive fields, attribution.",
    ),
    Verb(
        "animate",
        "convolve.cli.animate:animate",
        "Show a convolution or pooling at work, as a page and as pictures.",
    ),
    Verb("filter", "convolve.cli.filter:filter_image", "Apply named kernels, or your own, to an image."),
    Verb("learn-kernel", "convolve.cli.learn_kernel:learn_kernel", "Watch a kernel being learned from an edge."),
    Verb("claims", "convolve.cli.claims:claims", "Recompute what introductions say about convolution."),
    Verb("models", "convolve.cli.models:models", "List the networks that can be trained, with their size and cost."),
    Verb("demo", "convolve.cli.demo:demo", "Train on the embedded digits and predict a few of them."),
    Verb("data get", "convolve.cli.data:get", "Download a well-known data set: the one command that uses the network."),
    Verb("data check", "convolve.cli.data:check", "Find what is wrong with a data set, before training does."),
    Verb("why", "convolve.cli.why:why", "Print which algorithm computes a convolution, and why not the others."),
    Verb(
        "measure",
        "convolve.cli.measure:measure",
        "Time the algorithms on this machine, and choose by that from now on.",
    ),
    Verb("doctor", "convolve.cli.doctor:doctor", "Print versions, CPU, threads and folders, and what looks wrong."),
)

GROUPS = {"data": "Get and check data sets."}

EXAMPLES = """\
convolve: convolutional networks you can see through

  convolve demo                                  a minute: the claims, a network trained on small digits, a few predictions
  convolve train PHOTOS/                         a folder with one sub-folder of images per class
  convolve predict runs/PHOTOS-*/model.safetensors new.jpg
  convolve inspect vgg16 --input 3x224x224       shapes, cost, memory and receptive fields, before it runs
  convolve animate conv --input 5x5 --kernel 3   a convolution step by step, as one page

convolve --help lists every verb; convolve VERB --help explains one.
"""
