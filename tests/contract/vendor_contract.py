"""What every connector owes callvault, proved against its simulated phone system.

A new one is a subclass:

    class TestAcme(VendorContract):
        simulator = SimulatedAcme
        vendor = Acme

Conventions for simulators: `SimulatedAcme(calls)`, its `timezone`, `settings()`; `stuck`, `call.extra["bare"]` and
`call.extra["malformed"]` as `tests.support.simulator` describes them. A connector that pages reads `self.page_size`.
What a vendor can say of itself are the class attributes of `vendor_site.VendorSite`.
"""

from tests.contract.vendor_listing import ListingContract
from tests.contract.vendor_media import MediaContract
from tests.contract.vendor_refusals import RefusalContract
from tests.contract.vendor_site import DAY, HOSTILE_IDS, WINDOW, Site, calls_of_the_day

__all__ = ["DAY", "HOSTILE_IDS", "WINDOW", "Site", "VendorContract", "calls_of_the_day"]


class VendorContract(ListingContract, MediaContract, RefusalContract):
    """The whole suite."""
