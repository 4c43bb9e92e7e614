"""A user's own fields in NetCDF or Zarr, by the CF conventions, read a few time steps at a time.

Values lie on a regular or curvilinear grid or at points. xarray is imported with the first file that is opened
(``pip install 'eai[data]'``).
"""

from eai.fields.fields import Fields, open_fields

__all__ = ["Fields", "open_fields"]
