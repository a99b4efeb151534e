"""Rendered 256 x 256 scenes with photographic statistics, whose conditional distributions are known exactly.

A scene is a room: two solids, left and right, and a small one or none in front of them, on a ground before a wall, lit
by one lamp. Solids are ray-cast through a pinhole once per shape; a picture then is shading (Lambert and Blinn-Phong),
analytic cast shadows with a penumbra that widens away from the solid, procedural textures, band-limited mottling of the
surfaces, vignetting and sensor noise whose variance grows with the signal.

Attributes are dependent, along the edges of `PARENTS`: the wall depends on the time of day, the ground on the wall, the
right solid's colour and material on those of the left. The lamp's azimuth is continuous, uniform on an interval that
depends on the time of day. Each solid and its shadow stay in a part of the picture of their own.

Everything is vectorised torch on the device of the attributes. Noise is a hash of a picture's number, pixel and channel:
a picture is the same in every batch and on every device, up to rounding.
"""

from toy_prior.scenes.attributes import ATTRIBUTES, Attributes, posterior, sample_attributes
from toy_prior.scenes.renderer import SIZE, render

__all__ = ["ATTRIBUTES", "SIZE", "Attributes", "posterior", "render", "sample_attributes"]
