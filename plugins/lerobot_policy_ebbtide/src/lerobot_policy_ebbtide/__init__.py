"""Policies of ebbtide in LeRobot: importing this registers the policy type `ebbtide`."""

from .configuration_ebbtide import EbbtideConfig
from .modeling_ebbtide import EbbtidePolicy
from .processor_ebbtide import make_ebbtide_pre_post_processors

__all__ = ["EbbtideConfig", "EbbtidePolicy", "make_ebbtide_pre_post_processors"]
