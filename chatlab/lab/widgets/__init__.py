"""Widgets: the panels, buttons and pictures of a notebook cell."""

from chatlab.lab.widgets.chooser import Chooser
from chatlab.lab.widgets.cluster_panel import cluster_panel
from chatlab.lab.widgets.code_fold import code_of
from chatlab.lab.widgets.deployment_panel import deployment_panel
from chatlab.lab.widgets.engine_choice import choose
from chatlab.lab.widgets.fault_picture import FaultPicture, Mark
from chatlab.lab.widgets.links import link
from chatlab.lab.widgets.panels import chat_panel, figures
from chatlab.lab.widgets.predict import predict, questionnaire
from chatlab.lab.widgets.state_picture import StatePicture
from chatlab.lab.widgets.wire_panel import wire_and_client, wire_panel

__all__ = [
    "Chooser",
    "FaultPicture",
    "Mark",
    "StatePicture",
    "chat_panel",
    "choose",
    "cluster_panel",
    "code_of",
    "deployment_panel",
    "figures",
    "link",
    "predict",
    "questionnaire",
    "wire_and_client",
    "wire_panel",
]
